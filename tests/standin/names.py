"""A name server: answers A queries from a table, says NXDOMAIN to every other name, and records
what it was asked. TTLs are short and every answer is authoritative.

    python3 -m standin.names ADDRESS '{"app.harness.io": ["34.1.2.3"], "*.x.test": [...]}' LOG

serves UDP and TCP port 53 until its standard input ends; each name asked for is a line of LOG."""
import asyncio
import json
import socket
import struct
import sys

A, AAAA, NXDOMAIN, TTL = 1, 28, 3, 5


def question(data):
    """(name, type, where it ends) of the first question."""
    labels, at = [], 12
    while data[at]:
        labels.append(data[at + 1:at + 1 + data[at]].decode('ascii', 'replace').lower())
        at += data[at] + 1
    return '.'.join(labels), struct.unpack('!H', data[at + 1:at + 3])[0], at + 5


def find(table, name):
    if name in table:
        return table[name]
    return table.get('*.' + name.partition('.')[2])


def answer(data, table, log):
    name, kind, end = question(data)
    log.write(name + '\n')
    log.flush()
    found = find(table, name)
    records = found if found and kind == A else []
    # Response, authoritative, recursion as asked for and available.
    flags = 0x8480 | struct.unpack('!H', data[2:4])[0] & 0x0100 | (0 if found else NXDOMAIN)
    out = data[:2] + struct.pack('!5H', flags, 1, len(records), 0, 0) + data[12:end]
    for address in records:
        out += struct.pack('!HHHIH', 0xC00C, A, 1, TTL, 4) + socket.inet_aton(address)
    return out


class Datagrams(asyncio.DatagramProtocol):
    def __init__(self, table, log):
        self.table, self.log = table, log

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, peer):
        try:
            self.transport.sendto(answer(data, self.table, self.log), peer)
        except (IndexError, struct.error):
            pass                        # no question: no answer


async def serve(address, table, log):
    loop = asyncio.get_running_loop()

    async def stream(reader, writer):
        try:
            size = struct.unpack('!H', await reader.readexactly(2))[0]
            out = answer(await reader.readexactly(size), table, log)
            writer.write(struct.pack('!H', len(out)) + out)
        except (asyncio.IncompleteReadError, IndexError, struct.error):
            pass
        writer.close()

    await loop.create_datagram_endpoint(lambda: Datagrams(table, log), (address, 53))
    await asyncio.start_server(stream, address, 53)
    print('{"event": "ready"}', flush=True)
    done = asyncio.Event()
    loop.add_reader(0, done.set)
    await done.wait()


if __name__ == '__main__':
    with open(sys.argv[3], 'a') as record:
        asyncio.run(serve(sys.argv[1], json.loads(sys.argv[2]), record))
