"""Ask a mien server for the expressions in a picture: python client.py photo.jpg [http://127.0.0.1:8000]."""

import json
import sys
import urllib.request
from pathlib import Path

picture, *rest = sys.argv[1:]
server = rest[0] if rest else "http://127.0.0.1:8000"
request = urllib.request.Request(f"{server}/v1/pictures", Path(picture).read_bytes(), {"Content-Type": "image/jpeg"})
with urllib.request.urlopen(request) as answer:
    for face in json.load(answer)["pictures"][0]["faces"]:
        print(face["label"], face["confidence"], "unsure" if face["unsure"] else "")
