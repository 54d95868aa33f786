"""Throw-away certificates for tests: a CA, and whatever it is asked to certify."""
import datetime
import ipaddress
import os

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


def _name(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


class CA:
    """A certificate authority whose files live in `directory`; `ca` is the path of its PEM."""

    def __init__(self, directory, name='stand-in CA'):
        self.directory = str(directory)
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.cert = self._sign(_name(name), _name(name), self.key, self.key.public_key(), [
            (x509.BasicConstraints(ca=True, path_length=0), True)])
        self.ca = self._write(name, self.cert)
        self.ca_key = self._write_key(name, self.key)

    @staticmethod
    def _sign(subject, issuer, key, public, extensions, days=30):
        now = datetime.datetime.utcnow()
        builder = (x509.CertificateBuilder().subject_name(subject).issuer_name(issuer)
                   .public_key(public).serial_number(x509.random_serial_number())
                   .not_valid_before(now - datetime.timedelta(days=3))
                   .not_valid_after(now + datetime.timedelta(days=days)))
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(key, hashes.SHA256())

    def _path(self, name, suffix):
        safe = ''.join(ch if ch.isalnum() else '_' for ch in name)
        return os.path.join(self.directory, safe + suffix)

    def _write(self, name, cert):
        path = self._path(name, '.crt')
        with open(path, 'wb') as out:
            out.write(cert.public_bytes(serialization.Encoding.PEM))
        return path

    def _write_key(self, name, key):
        path = self._path(name, '.key')
        with open(path, 'wb') as out:
            os.chmod(path, 0o600)
            out.write(key.private_bytes(serialization.Encoding.PEM,
                                        serialization.PrivateFormat.PKCS8,
                                        serialization.NoEncryption()))
        return path

    def issue(self, *names, client=False, expired=False):
        """(certificate path, key path) for host names and addresses, or for a client's name."""
        key = ec.generate_private_key(ec.SECP256R1())
        alternatives = []
        for name in names:
            try:
                alternatives.append(x509.IPAddress(ipaddress.ip_address(name)))
            except ValueError:
                alternatives.append(x509.DNSName(name))
        usage = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
        cert = self._sign(_name(names[0]), self.cert.subject, self.key, key.public_key(), [
            (x509.SubjectAlternativeName(alternatives), False),
            (x509.ExtendedKeyUsage([usage]), False)], days=-1 if expired else 30)
        label = names[0] + ('-client' if client else '') + ('-expired' if expired else '')
        return self._write(label, cert), self._write_key(label, key)
