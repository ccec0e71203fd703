"""A workload that uses py-spiffe, told what to do line by line on standard input; answers are JSON lines."""

import json
import socket
import ssl
import sys
import tempfile
import threading
import time

from cryptography.hazmat.primitives import serialization
from cryptography.x509 import SubjectAlternativeName, UniformResourceIdentifier, load_der_x509_certificate
from spiffe import JwtSource, JwtSvid, WorkloadApiClient, X509Source

LIMIT = 10


class Workload:
    def __init__(self, path):
        self.x509 = X509Source(socket_path=path)
        self.jwt_source = JwtSource(socket_path=path)
        self.api = WorkloadApiClient(path)

    def current(self):
        return self.x509.get_x509_context().default_svid

    def svid(self):
        svid = self.current()
        bundle = self.x509.get_bundle_for_trust_domain(svid.spiffe_id.trust_domain)
        serial = f"{svid.leaf.serial_number:x}"
        return {
            "id": str(svid.spiffe_id),
            "serial": serial.zfill(len(serial) + len(serial) % 2),
            "roots": len(bundle.x509_authorities),
        }

    def changed(self, serial):
        """Waits until the serial number is another one."""
        while self.svid()["serial"] == serial:
            time.sleep(0.02)
        return self.svid()

    def jwt(self, audience):
        svid = self.jwt_source.fetch_svid({audience})
        return {"id": str(svid.spiffe_id), "token": svid.token}

    def verify(self, audience, token):
        """With the bundle that was fetched."""
        domain = JwtSvid.parse_insecure(token, {audience}).spiffe_id.trust_domain
        bundle = self.jwt_source.get_bundle_for_trust_domain(domain)
        return {"id": str(JwtSvid.parse_and_validate(token, bundle, {audience}).spiffe_id)}

    def validate(self, audience, token):
        """By the Workload API."""
        return {"id": str(self.api.validate_jwt_svid(token, audience).spiffe_id)}

    def context(self, side):
        """TLS with what is current: the chain and key of the SVID, and the roots of its trust domain."""
        svid = self.current()
        bundle = self.x509.get_bundle_for_trust_domain(svid.spiffe_id.trust_domain)
        pem = serialization.Encoding.PEM
        context = ssl.SSLContext(side)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        roots = b"".join(root.public_bytes(pem) for root in bundle.x509_authorities)
        context.load_verify_locations(cadata=roots.decode())
        with tempfile.NamedTemporaryFile() as file:
            for certificate in svid.cert_chain:
                file.write(certificate.public_bytes(pem))
            file.write(
                svid.private_key.private_bytes(
                    pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
                )
            )
            file.flush()
            context.load_cert_chain(file.name)
        return context

    def listen(self):
        """Says `pong` to everybody whose identity is valid."""
        listener = socket.create_server(("127.0.0.1", 0))

        def serve():
            while True:
                connection, _ = listener.accept()
                connection.settimeout(LIMIT)
                try:
                    with self.context(ssl.PROTOCOL_TLS_SERVER).wrap_socket(connection, server_side=True) as tls:
                        if tls.recv(4) == b"ping":
                            tls.sendall(b"pong")
                except OSError as error:
                    print(error, file=sys.stderr)

        threading.Thread(target=serve, daemon=True).start()
        return {"address": "%s:%d" % listener.getsockname()}

    def dial(self, address, identity):
        """Says `ping` to the workload with this identity and hears what it says."""
        host, port = address.rsplit(":", 1)
        with socket.create_connection((host, int(port)), timeout=LIMIT) as connection:
            with self.context(ssl.PROTOCOL_TLS_CLIENT).wrap_socket(connection) as tls:
                leaf = load_der_x509_certificate(tls.getpeercert(binary_form=True))
                names = leaf.extensions.get_extension_for_class(SubjectAlternativeName).value
                if names.get_values_for_type(UniformResourceIdentifier) != [identity]:
                    raise ValueError(f"the peer is {names}")
                tls.sendall(b"ping")
                return {"said": tls.recv(4).decode()}


def main():
    workload = Workload(sys.argv[1])
    for line in sys.stdin:
        order, *arguments = line.split()
        try:
            answer = getattr(workload, order)(*arguments)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


main()
