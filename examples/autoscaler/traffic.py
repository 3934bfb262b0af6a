#!/usr/bin/env python3
"""Keeps COUNT requests to URL going at any time, until it is ended. Usage: traffic.py URL COUNT"""

import sys
import threading
import time
import urllib.request

url, count = sys.argv[1], int(sys.argv[2])


def user():
    while True:
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                answer.read()
        except OSError as error:
            print(error, flush=True)
            # A balancer that refuses everything should not be asked in a tight loop.
            time.sleep(0.2)


for _ in range(count):
    threading.Thread(target=user).start()
