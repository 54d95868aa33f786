"""The object store behind the signed links: S3-style V4 query signatures, GCS-style gzip (HP 1.9).

The signature is computed over path and query exactly as they were received, so any re-encoding or
reordering by an intermediary is refused like a forged link."""
import base64
import calendar
import hashlib
import hmac
import time
import zlib
from urllib.parse import quote

from .logservice import Blob

try:
    import crcmod.predefined
    crc32c = crcmod.predefined.mkPredefinedCrcFun('crc-32c')
except ImportError:
    def _table():
        rows = []
        for value in range(256):
            for _ in range(8):
                value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
            rows.append(value)
        return rows

    _TABLE = _table()

    def crc32c(data):
        crc = 0xFFFFFFFF
        for byte in data:
            crc = _TABLE[(crc ^ byte) & 255] ^ (crc >> 8)
        return crc ^ 0xFFFFFFFF

FORMS = {   # algorithm, key prefix, last part of the scope, service, parameter prefix
    'aws': ('AWS4-HMAC-SHA256', 'AWS4', 'aws4_request', 's3', 'X-Amz-'),
    'goog': ('GOOG4-HMAC-SHA256', 'GOOG4', 'goog4_request', 'storage', 'X-Goog-'),
}
LINK_SECONDS = 3600


def _mac(key, text):
    return hmac.new(key, text.encode('latin-1'), hashlib.sha256).digest()


class ObjectStore:
    """Objects by name (without bucket and prefix), and the counters of what it refused."""

    def __init__(self, clock, options):
        self.clock, self.options = clock, options
        self.objects = {}
        self.base = None                # scheme://host:port, set when the port is known
        self.access, self.secret, self.region = 'GOOGSTANDINKEY', 'standin-secret', 'auto'
        self.leaks = []                 # requests that carried a Harness credential
        self.refused = {}               # reason -> count
        self.puts = self.gets = 0

    # -- objects

    def put(self, name, data, via, encoding=None, headers=()):
        blob = self.objects.get(name)
        if blob is None:
            blob = self.objects[name] = Blob()
        blob.data, blob.encoding, blob.via, blob.headers = data, encoding, via, list(headers)
        blob.md5, blob.digests = hashlib.md5(data).digest(), None
        blob.puts += 1
        blob.history.append((via, len(data), encoding))
        return blob

    def get(self, name):
        return self.objects.get(name)

    def delete(self, name):
        self.objects.pop(name, None)

    @staticmethod
    def inflate(blob):
        """The object's content, however it is stored; as it is, if its gzip is broken."""
        if blob.encoding != 'gzip':
            return blob.data
        try:
            return zlib.decompress(blob.data, 31)
        except zlib.error:
            return blob.data

    # -- signatures

    def location(self, name):
        """(host, path) of an object, as the configured style writes them."""
        scheme, _, host = self.base.partition('://')
        bucket, prefix = self.options.bucket, self.options.store_prefix
        path = '/' + prefix + quote(name.encode('utf-8', 'surrogateescape'), safe='/-_.~')
        if self.options.store_style == 'virtual':
            return scheme, bucket + '.' + host, path
        return scheme, host, '/' + bucket + path

    def sign(self, method, name):
        """A link good for an hour, in the parameter order that Go's presigner emits (sorted)."""
        algorithm, _, last, service, pre = FORMS[self.options.link_form]
        scheme, host, path = self.location(name)
        now = time.gmtime(self.clock())
        date, stamp = time.strftime('%Y%m%d', now), time.strftime('%Y%m%dT%H%M%SZ', now)
        scope = '/'.join((date, self.region, service, last))
        params = [(pre + 'Algorithm', algorithm),
                  (pre + 'Credential', self.access + '/' + scope), (pre + 'Date', stamp),
                  (pre + 'Expires', str(LINK_SECONDS)), (pre + 'SignedHeaders', 'host')]
        query = '&'.join(k + '=' + quote(v, safe='-_.~') for k, v in sorted(params))
        signature = self.signature(method, host, path, query, date, stamp)
        return '%s://%s%s?%s&%sSignature=%s' % (scheme, host, path, query, pre, signature)

    def signature(self, method, host, path, query, date, stamp):
        algorithm, key_prefix, last, service, _ = FORMS[self.options.link_form]
        canonical = '\n'.join((method, path, query, 'host:' + host, '', 'host',
                               'UNSIGNED-PAYLOAD'))
        scope = '/'.join((date, self.region, service, last))
        text = '\n'.join((algorithm, stamp, scope,
                          hashlib.sha256(canonical.encode('latin-1')).hexdigest()))
        key = (key_prefix + self.secret).encode()
        for part in (date, self.region, service, last):
            key = _mac(key, part)
        return _mac(key, text).hex()

    def verify(self, req):
        """None if the request is signed and whole, else the reason for a 403."""
        pre = FORMS[self.options.link_form][4]
        unsigned, _, signature = req.query.rpartition('&' + pre + 'Signature=')
        if not unsigned:
            return 'no signature'
        values = {}
        for part in unsigned.split('&'):
            name, _, value = part.partition('=')
            values[name] = value
        stamp = values.get(pre + 'Date', '')
        try:
            signed_at = calendar.timegm(time.strptime(stamp, '%Y%m%dT%H%M%SZ'))
            lifetime = int(values.get(pre + 'Expires', ''))
        except ValueError:
            return 'malformed'
        if not 0 < lifetime <= 604800 or values.get(pre + 'SignedHeaders') != 'host':
            return 'malformed'
        host = req.get('host', '')
        expected = self.signature(req.method, host, req.path, unsigned, stamp[:8], stamp)
        if not hmac.compare_digest(expected, signature):
            return 'wrong host' if host != self.location('x')[1] else 'wrong signature'
        if self.clock() > signed_at + lifetime:
            return 'expired'
        for name, _ in req.headers:
            if name.lower().startswith(('x-amz-', 'x-goog-')):
                return 'unsigned header'
        if self.options.strict_entity_headers and (req.get('content-type')
                                                   or req.get('content-md5')):
            return 'entity header'
        return None

    def watch(self, req):
        """Counts Harness credentials that reach the store: a leak, whatever is answered."""
        for name, _ in req.headers:
            if name.lower() in ('x-harness-token', 'x-api-key', 'authorization'):
                self.leaks.append({'header': name, 'target': req.target})

    def refuse(self, reason):
        self.refused[reason] = self.refused.get(reason, 0) + 1
        code = 'ExpiredToken' if reason == 'expired' else 'SignatureDoesNotMatch'
        body = ("<?xml version='1.0' encoding='UTF-8'?><Error><Code>%s</Code><Message>Access "
                'denied: %s.</Message></Error>' % (code, reason))
        return 403, [('Content-Type', 'application/xml; charset=UTF-8')], body.encode()

    def name_of(self, req):
        """The object a request's path names, or None if it is outside of the bucket."""
        from .gojson import unescape
        path = unescape(req.path.replace('+', '%2B')) or ''
        lead = '/' + self.options.store_prefix
        if self.options.store_style != 'virtual':
            lead = '/' + self.options.bucket + lead
        return path[len(lead):] if path.startswith(lead) else None

    # -- requests; each returns (status, headers, body)

    def put_object(self, req, body, wrong_crc=False):
        name = self.name_of(req)
        if name is None:
            return 404, (), b''
        encoding = req.get('content-encoding')
        blob = self.put(name, body, 'put-object', encoding, req.headers)
        self.puts += 1
        headers = [('ETag', '"%s"' % blob.md5.hex())]
        if self.options.transcode:
            hashed = body + b'!' if wrong_crc else body
            crc, md5 = crc32c(hashed).to_bytes(4, 'big'), hashlib.md5(hashed).digest()
            headers += [('x-goog-hash', 'crc32c=' + base64.b64encode(crc).decode()),
                        ('x-goog-hash', 'md5=' + base64.b64encode(md5).decode()),
                        ('x-goog-stored-content-length', str(len(body))),
                        ('x-goog-stored-content-encoding', encoding or 'identity')]
            if self.options.joined_hash:
                values = ','.join(v for k, v in headers if k == 'x-goog-hash')
                headers = [h for h in headers if h[0] != 'x-goog-hash']
                headers.append(('x-goog-hash', values))
        return 200, headers, b''

    def get_object(self, req):
        blob = self.objects.get(self.name_of(req))
        if blob is None:
            return 404, [('Content-Type', 'application/xml')], b'<Error>NoSuchKey</Error>'
        self.gets += 1
        accepts = 'gzip' in (req.get('accept-encoding') or '')
        if blob.encoding and self.options.transcode and not accepts:
            return 200, [('x-goog-stored-content-encoding', blob.encoding),
                         ('Vary', 'Accept-Encoding')], self.inflate(blob)
        headers = [('ETag', '"%s"' % blob.md5.hex())]
        if blob.encoding:
            headers.append(('Content-Encoding', blob.encoding))
        return 200, headers, blob.data
