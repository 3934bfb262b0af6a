#!/usr/bin/env python3
"""A web server that answers with its name.

Usage: web.py NAME PORT_FILE. It listens on a free port of 127.0.0.1 and writes the number to PORT_FILE.
GET /           answers the name after WORK_SECONDS of pretended work (default 0)
GET /load       how many requests are being worked on
"""

import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

name, port_file = sys.argv[1:]
work_seconds = float(os.environ.get("WORK_SECONDS", "0"))
lock = threading.Lock()
in_work = 0


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(str(in_work) if self.path == "/load" else work())

    def answer(self, text):
        body = (text + "\n").encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def work():
    global in_work
    with lock:
        in_work += 1
    try:
        time.sleep(work_seconds)
        return name
    finally:
        with lock:
            in_work -= 1


class Server(ThreadingHTTPServer):
    # More than a handful may knock at once.
    request_queue_size = 128


server = Server(("127.0.0.1", 0), Handler)
# Whoever waits for the file finds it complete.
with open(port_file + ".new", "w") as file:
    file.write(f"{server.server_port}\n")
os.rename(port_file + ".new", port_file)
server.serve_forever()
