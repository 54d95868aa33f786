"""The source tree: a copy of what belongs to it, and commands that must succeed."""
import shutil
import subprocess
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
NOT_OURS = ('.git', 'build*', 'autom4te.cache', '__pycache__', '.pytest_cache', '*.o', '*.a', '.deps', 'Makefile')


def copy_of_the_tree(to):
    """What is under version control, or all that looks like it where there is none."""
    listed = subprocess.run(['git', 'ls-files', '-co', '--exclude-standard'], cwd=TOP, capture_output=True, text=True)
    if listed.returncode != 0:
        shutil.copytree(TOP, to, ignore=shutil.ignore_patterns(*NOT_OURS), symlinks=True)
        return to
    for name in listed.stdout.splitlines():
        if not (TOP / name).exists():
            continue
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(TOP / name, to / name, follow_symlinks=False)
    return to


def run(*args, **kw):
    done = subprocess.run(args, capture_output=True, text=True, **kw)
    assert done.returncode == 0, f'{args}: {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}'
    return done.stdout
