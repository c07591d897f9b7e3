"""A small web server in place of the web tier: HTTPS on 443, HTTP on 8080, /nginx-healthz like the real one.

/slow/SECONDS takes its time.
"""

import json
import socket
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

UNHEALTHY = Path("/run/unhealthy")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # An answer is one write, sent at once, as nginx does: a body that waits for the header's ACK takes 40 ms.
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_GET(self):
        if self.path.startswith("/slow/"):
            time.sleep(float(self.path.removeprefix("/slow/")))
        status = 503 if UNHEALTHY.exists() else 200
        answer = {"server": socket.gethostname(), "path": self.path, "headers": dict(self.headers)}
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        # As the web tier does.
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("X-Frame-Options", "SAMEORIGIN")
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *_):
        pass


tls = ThreadingHTTPServer(("", 443), Handler)
context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
context.load_cert_chain("/etc/ssl/webstack/host.pem", "/etc/ssl/webstack/host.pem.key")
tls.socket = context.wrap_socket(tls.socket, server_side=True, do_handshake_on_connect=False)
threading.Thread(target=tls.serve_forever).start()
ThreadingHTTPServer(("", 8080), Handler).serve_forever()
