"""A client of PySocks, which does over UDP what it is told line by line and prints what comes of it."""
import socket
import sys

import socks

host, port, user, password = sys.argv[1:5]
s = socks.socksocket(socket.AF_INET, socket.SOCK_DGRAM)
s.set_proxy(socks.SOCKS5, host, int(port), True, user or None, password or None)
s.settimeout(50)
for line in sys.stdin:
    verb, *words = line.split()
    try:
        if verb == "bind":  # which asks for the association
            s.bind(("", int(words[0])))
            print("bound to", *super(socks.socksocket, s).getpeername(), flush=True)
        elif verb == "say":
            s.sendto(words[2].encode(), (words[0], int(words[1])))
        elif verb == "hear":
            payload, source = s.recvfrom(1 << 16)
            print(payload.decode(), "from", *source[:2], flush=True)
    except Exception as e:
        print("error:", e, flush=True)
s.close()
