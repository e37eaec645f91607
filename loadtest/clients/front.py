"""nginx with TLS and HTTP/2 before the replicas of the cluster, beside the cluster's own, which has neither."""

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path


class Front:
    """The cluster's own configuration, but for where it listens."""

    def __init__(self):
        self.home = Path(tempfile.mkdtemp(prefix="front-", dir=os.environ["CLUSTER_DIR"]))
        self.port, status = free_port(), free_port()
        for file in Path(os.environ["CLUSTER_DIR"], "nginx").glob("*.conf"):
            shutil.copy(file, self.home)
        tls = f"listen 127.0.0.1:{self.port} ssl http2; ssl_certificate cert.pem; ssl_certificate_key key.pem;"
        main = (self.home / "nginx.conf").read_text()
        main = re.sub(r"listen \S+ backlog=4096 reuseport[^;]*;", tls, main)
        main = main.replace(f":{os.environ['NGINX_STATUS_PORT']};", f":{status};")
        (self.home / "nginx.conf").write_text(main)
        self.certificate = self.home / "cert.pem"
        key = ["-nodes", "-newkey", "rsa:2048", "-keyout", self.home / "key.pem", "-out", self.certificate]
        name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
        subprocess.run(["openssl", "req", "-x509", "-days", "2", *key, *name], check=True, capture_output=True)
        self.url = f"https://localhost:{self.port}"
        self.log = self.home / "nginx.log"
        self.start()

    def environment(self):
        """By which the clients trust it."""
        names = ("NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
        return dict.fromkeys(names, str(self.certificate))

    def start(self):
        user = "user root; " if os.geteuid() == 0 else ""
        command = ["-p", ".", "-c", "nginx.conf", "-e", "stderr", "-g", f"{user}daemon off;"]
        with self.log.open("ab") as log:
            path = shutil.which(os.environ.get("NGINX") or "nginx", path=f"{os.environ['PATH']}:/usr/sbin")
            self.process = subprocess.Popen(
                [path, *command], cwd=self.home, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise RuntimeError(f"nginx does not listen: {self.log.read_text()[-2000:]}")

    def kill(self):
        """It and its workers, which are of its session, at once."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def reload(self):
        self.process.send_signal(signal.SIGHUP)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
