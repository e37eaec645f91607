"""The certificate of the local cluster: of nobody's making but its own, for this machine's own names."""

import os
import ssl
import subprocess
import tempfile
from pathlib import Path

NAMES = "DNS:localhost,IP:127.0.0.1,IP:::1"
DAYS = 365
LEFT_MIN_SECONDS = 30 * 24 * 60 * 60  # with less than a month it is replaced, so nobody meets one that has expired
CERTIFICATE, KEY = "certificate.pem", "certificate-key.pem"


def keep_certificate(home):
    """There is a certificate in this folder that is good for a while. One that was trusted already stays."""
    if is_good(home):
        return
    with tempfile.TemporaryDirectory(dir=home) as draft:
        make(Path(draft))
        # Interrupted in between, the two do not belong together, and the next look says so.
        for name in (KEY, CERTIFICATE):
            Path(draft, name).replace(home / name)


def is_good(home):
    certificate, key = home / CERTIFICATE, home / KEY
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
            certificate, key, password=""
        )  # a pair, and no question
        key.chmod(0o600)
    except (OSError, ValueError):  # ssl.SSLError is an OSError
        return False
    lasts = ["openssl", "x509", "-in", certificate, "-noout", "-checkend", str(LEFT_MIN_SECONDS)]
    return subprocess.run(lasts, stdout=subprocess.DEVNULL).returncode == 0


def make(folder):
    """A certificate that stands for itself alone: nobody could sign another one with its key."""
    command = [
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-sha256"),
        *("-days", str(DAYS), "-subj", "/CN=tidegate local", "-keyout", folder / KEY, "-out", folder / CERTIFICATE),
        *("-addext", f"subjectAltName={NAMES}", "-addext", "basicConstraints=critical,CA:FALSE"),
        *("-addext", "keyUsage=critical,digitalSignature", "-addext", "extendedKeyUsage=serverAuth"),
    ]
    # Without a file of the system's: what stands there is not ours to rely on.
    (folder / "openssl.cnf").write_text("[req]\ndistinguished_name = name\n[name]\n")
    environment = {**os.environ, "OPENSSL_CONF": str(folder / "openssl.cnf")}
    mask = os.umask(0o077)
    try:
        done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    finally:
        os.umask(mask)
    if done.returncode != 0:
        raise OSError(f"openssl makes no certificate: {done.stderr.strip()}")
    (folder / CERTIFICATE).chmod(0o644)
