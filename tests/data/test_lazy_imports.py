"""Lazy imports of one thread leave the imports of others alone."""

import subprocess
import sys

SCRIPT = """
import threading
{prepared}
from etils import epy

inside, done = threading.Event(), threading.Event()

def other():
    with epy.lazy_imports():
        import colorsys
        inside.set()
        done.wait(30)
    found["lazy"] = type(colorsys).__name__, colorsys.rgb_to_hsv(0.0, 0.0, 0.0)

found = {{}}
thread = threading.Thread(target=other)
thread.start()
assert inside.wait(30)
from wave import open as opened
import keyword
found["here"] = type(opened).__name__, type(keyword).__name__
done.set()
thread.join()
print(found)
"""


def run(prepared):
    done = subprocess.run([sys.executable, "-c", SCRIPT.format(prepared=prepared)], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_another_thread_gets_real_modules_while_one_imports_lazily():
    call = "from prompt_tuning.data import lazy_imports; lazy_imports.keep_apart(); lazy_imports.keep_apart()"
    assert run(call) == "{'here': ('function', 'module'), 'lazy': ('LazyModule', (0.0, 0.0, 0.0))}"


def test_without_it_another_thread_gets_lazy_ones():
    # When etils mends this, the module can go.
    assert "'here': ('LazyModule'" in run("")
