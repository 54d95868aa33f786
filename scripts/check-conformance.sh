#!/bin/sh
# A test of `make check`: the table of conformance names tests that exist.
srcdir=${srcdir:-$(dirname "$0")/..}
python=${PYTHON:-python3}
command -v "$python" >/dev/null || exit 77
exec "$python" "$srcdir/scripts/check-conformance.py" --root "$srcdir"
