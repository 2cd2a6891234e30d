"""Fetches a URL through a proxy as urllib does it: fetch.py PROXY_URL CA_FILE URL.

Without a PROXY_URL ("") urllib takes the proxy from the environment."""
import ssl
import sys
import urllib.request

proxy, ca, url = sys.argv[1:]
handlers = [urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=ca))]
if proxy:
    handlers.append(urllib.request.ProxyHandler({"http": proxy, "https": proxy}))
with urllib.request.build_opener(*handlers).open(url, timeout=50) as answer:
    sys.stdout.write(answer.read().decode())
