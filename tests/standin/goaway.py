"""Takes GOAWAY frames out of an HTTP/2 byte stream.

python-h2 refuses to go on with any stream once it has seen a GOAWAY; real peers finish the streams
below the last one named in it. So it must not see them."""


class GoawayFilter:
    """`feed(data)` returns (data without GOAWAY frames, last stream ids of those taken out)."""

    def __init__(self, skip=0):
        self.left = skip            # bytes of the frame under way (first: the client's preface)
        self.held = b''             # a frame head, or a GOAWAY, that is not complete yet

    def feed(self, data):
        if self.left >= len(data) and not self.held:
            self.left -= len(data)
            return data, ()
        data, self.held = self.held + data, b''
        out, found, pos = [], [], 0
        while pos < len(data):
            if self.left:
                piece = data[pos:pos + self.left]
                out.append(piece)
                pos += len(piece)
                self.left -= len(piece)
                continue
            head = data[pos:pos + 9]
            if len(head) < 9:
                self.held = head
                break
            length = int.from_bytes(head[:3], 'big')
            if head[3] != 7:
                self.left = 9 + length
                continue
            frame = data[pos:pos + 9 + length]
            if len(frame) < 9 + length:
                self.held = frame
                break
            found.append(int.from_bytes(frame[9:13], 'big') & 0x7FFFFFFF)
            pos += len(frame)
        return b''.join(out), found
