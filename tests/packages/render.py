#!/usr/bin/python3
"""Renders the chart, with helm: the manifests in contrib/kubernetes for those who do without it, and one with everything
switched on for the tests. Each begins with a digest of what it was made of, so that tests see when it is stale where there
is no helm.

    render.py [--check]     --check: write nothing; 1 if a file is not what it would be"""
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
CHART = TOP / 'contrib' / 'helm' / 'tailrace'
HERE = TOP / 'tests' / 'packages'
FULL = HERE / 'rendered-full.yaml'
PLAIN = TOP / 'contrib' / 'kubernetes' / 'tailrace.yaml'
NOTES = HERE / 'rendered-notes.yaml'
CONFINED = TOP / 'contrib' / 'kubernetes' / 'only-way-out.yaml'
KUBERNETES = '1.29.0'

ABOUT = {
    FULL: ('# Everything of the chart switched on.\n'),
    NOTES: ('# What `helm install` says: with the defaults, and with everything switched on.\n'),
    PLAIN: ('# tailrace with the defaults of the chart in contrib/helm, for those who do without helm:\n'
                '#\n'
                '#   kubectl create namespace tailrace\n'
                '#   kubectl apply -n tailrace -f tailrace.yaml\n'
                '#\n'
                '# Set the image and the configuration in the ConfigMap to yours.\n'),
    CONFINED: ('# Pods of the namespace `builds` reach the gateway in the namespace `tailrace`, each other, and names; nothing\n'
                   '# else: kubectl apply -f only-way-out.yaml\n'),
}


def digest(*more):
    h = hashlib.sha256()
    for path in sorted(p for p in CHART.rglob('*') if p.is_file() and p.parent.name != 'files') + list(more):
        h.update(str(path.relative_to(TOP)).encode() + b'\0' + path.read_bytes() + b'\0')
    return h.hexdigest()


def sources(path):
    """What a rendered file is made of besides the chart."""
    return [HERE / 'values-full.yaml'] if path in (FULL, NOTES) else []


def helm(*args, chart=CHART):
    return subprocess.run(['helm', 'template', 'tailrace', str(chart), '--namespace', 'tailrace', '--kube-version', KUBERNETES,
                           *args], check=True, capture_output=True, text=True).stdout


def plain(text):
    """Without the traces of helm, which others than helm must not leave."""
    return re.sub(r'^(# Source: .*|.*app.kubernetes.io/managed-by: Helm|.*helm.sh/chart: .*)\n', '', text, flags=re.M)


def notes(*args):
    """`helm template` leaves the notes out: as a document of a copy of the chart it renders them."""
    with tempfile.TemporaryDirectory() as top:
        chart = Path(top) / 'tailrace'
        shutil.copytree(CHART, chart)
        text = (chart / 'templates' / 'NOTES.txt').read_text()
        (chart / 'templates' / 'notes.yaml').write_text(
            '{{- define "notes" }}' + text + '{{ end }}\ntext: |\n  {{- include "notes" . | nindent 2 }}\n')
        return re.sub(r' +$', '', plain(helm('--show-only', 'templates/notes.yaml', *args, chart=chart)), flags=re.M)


def rendered(path):
    if path == NOTES:
        text = notes() + notes('-f', str(HERE / 'values-full.yaml'))
    elif path == FULL:
        text = helm('-f', str(HERE / 'values-full.yaml'))
    elif path == PLAIN:
        text = plain(helm())
    else:
        text = plain(helm('--set', 'networkPolicy.confine.namespaces={builds}', '--set', 'listeners.proxy.enabled=true',
                          '--show-only', 'templates/policies.yaml'))
        text = '---\n' + next(d for d in text.split('---\n') if 'namespace: builds' in d)
    return f'{ABOUT[path]}# Made by tests/packages/render.py; sources: {digest(*sources(path))}\n{text}'


def main():
    if not shutil.which('helm'):
        sys.exit('helm is not installed')
    stale = [p for p in ABOUT if not p.exists() or p.read_text() != rendered(p)]
    for path in stale:
        print('stale' if '--check' in sys.argv else 'written', path.relative_to(TOP))
        if '--check' not in sys.argv:
            path.parent.mkdir(exist_ok=True)
            path.write_text(rendered(path))
    return 1 if stale and '--check' in sys.argv else 0


if __name__ == '__main__':
    sys.exit(main())
