"""One module per collection of tasks: the bundled world, the user's own files, GLUE and SuperGLUE."""
