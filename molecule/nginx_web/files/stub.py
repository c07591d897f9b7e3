"""A small application server: answers with what it was asked, over kept-alive connections, and counts.

/status/N answers N, /slow/SECONDS takes its time, /large sends 1 MiB, /cookie sets one, /die hangs up, /ws echoes.
"""

import base64
import hashlib
import itertools
import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

requests, connections = itertools.count(1), itertools.count(1)
posts: list[str] = []


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 75
    # An answer leaves in one piece: a server that is killed has sent all of it, or nothing that cannot be asked again.
    wbufsize = 2**21

    def setup(self):
        super().setup()
        self.connection_number = next(connections)

    def do_GET(self):
        parts = self.path.split("?")[0].strip("/").split("/")
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.command not in ("GET", "HEAD"):
            posts.append(self.path)
        if parts[0] == "ws":
            return self.websocket()
        if parts[0] == "slow":
            time.sleep(float(parts[1]))
        if parts[0] == "die":
            self.close_connection = True
            return self.connection.shutdown(socket.SHUT_RDWR)
        answer = {
            "server": socket.gethostname(),
            "path": self.path,
            "method": self.command,
            "headers": dict(self.headers),
            "connection": self.connection_number,
            "request": next(requests),
            "received": len(sent),
            "posts": posts,
        }
        body = b"x" * 2**20 if parts[0] == "large" else json.dumps(answer).encode()
        self.send_response(int(parts[1]) if parts[0] == "status" else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if parts[0] == "cookie":
            self.send_header("Set-Cookie", "session=1")
        if parts[0] == "framed":
            self.send_header("X-Frame-Options", "DENY")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_GET

    def websocket(self):
        """RFC 6455, as far as a test needs it: one small masked text frame is echoed in capitals."""
        magic = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(magic.encode()).digest()).decode())
        self.end_headers()
        self.wfile.flush()
        length = self.rfile.read(2)[1] & 127
        mask = self.rfile.read(4)
        text = bytes(byte ^ mask[i % 4] for i, byte in enumerate(self.rfile.read(length)))
        self.wfile.write(bytes([0x81, length]) + text.upper())
        self.close_connection = True

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 1024
    daemon_threads = True


threading.stack_size(256 * 1024)
Server(("", 8000), Handler).serve_forever()
