"""The main job on real data: SST-2 and a SuperGLUE set, read as a user's own files."""
