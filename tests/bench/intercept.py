#!/usr/bin/python3
"""E9: what a TLS connection through interception costs the gateway, the first to a host and later ones.

    TAILRACE=…/tailrace BUILD=<build directory> intercept.py [--hosts 300] [--ca p256|rsa]

CPU of the gateway for each connection, from the CONNECT to the end of the handshake, beside a handshake with a listener's
own certificate. Rows as in bench.py."""
import argparse
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / 'integration'), str(HERE)]

import peers                                        # noqa: E402
from bench import row, show                         # noqa: E402
from gateway import Gateway                         # noqa: E402
from inside import connect                          # noqa: E402
from standin.certs import CA                        # noqa: E402


def rsa_ca(directory):
    """A CA with a key as companies have them; standin.certs makes P-256."""
    ca, key = directory / 'rsa.pem', directory / 'rsa.key'
    subprocess.run(['openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-keyout', key, '-out', ca, '-subj', '/CN=rsa',
                    '-days', '30', '-addext', 'keyUsage=critical,keyCertSign'], check=True, capture_output=True)
    return str(ca), str(key)


def through_proxy(gateway, context, name):
    with connect(gateway.ports['proxy'], f'{name}:443') as s:
        context.wrap_socket(s, server_hostname=name).close()


def to_listener(gateway, context):
    with socket.create_connection(('127.0.0.1', gateway.port)) as s:
        context.wrap_socket(s, server_hostname='127.0.0.1').close()


def cost(gateway, calls):
    """µs of the gateway's CPU for each."""
    before = peers.cpu(gateway.pid)
    for call, *args in calls:
        call(gateway, *args)
    return (peers.cpu(gateway.pid) - before) / len(calls) * 1e6


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n', 1)[0])
    parser.add_argument('--hosts', type=int, default=300)
    parser.add_argument('--ca', choices=('p256', 'rsa'), default='p256')
    args = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix='bench-'))
    made = CA(directory)
    cert, key = made.issue('127.0.0.1')
    ca, ca_key = rsa_ca(directory) if args.ca == 'rsa' else (made.ca, made.ca_key)
    options = {'listen': {'proxy': {'address': '127.0.0.1:0'}}, 'workers': 1, 'log': {'level': 'warn'}, 'audit': {'to': 'none'},
               'intercept': {'ca': ca, 'key': ca_key, 'hosts': ['*.bench.test']},
               'egress': {'allow': ['*.bench.test']}}
    try:
        with Gateway(directory / 'tailrace', 'https://app.bench.test', cert=cert, key=key,
                     **dict(options, log={'level': 'notice'})) as gateway:
            minted, own = ssl.create_default_context(cafile=ca), ssl.create_default_context(cafile=made.ca)
            n = args.hosts
            for call in ((through_proxy, minted, 'warm.bench.test'), (to_listener, own)):
                cost(gateway, [call] * 50)
            first = cost(gateway, [(through_proxy, minted, f'h{i}.bench.test') for i in range(n)])
            later = cost(gateway, [(through_proxy, minted, 'h1.bench.test')] * n)
            bare = cost(gateway, [(to_listener, own)] * n)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print(f'E9 {args.ca}: first {show(first, "us")}, later {show(later, "us")}, mint {show(first - later, "us")}, '
          f'own certificate {show(bare, "us")}')
    row('E9-mint', 'target', first - later, 1000, 'us')
    row('E9-later', 'listener', later, bare, 'us')
    return 0


if __name__ == '__main__':
    sys.exit(main())
