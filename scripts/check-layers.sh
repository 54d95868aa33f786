#!/bin/sh
# A test of `make check`: the checker itself first, then the tree.
srcdir=${srcdir:-$(dirname "$0")/..}
python=${PYTHON:-python3}
command -v "$python" >/dev/null || exit 77
"$python" "$srcdir/scripts/check-layers-selftest.py" || exit 1
exec "$python" "$srcdir/scripts/check-layers.py" --root "$srcdir"
