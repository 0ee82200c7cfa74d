"""Fetches a corpus of real captions: the COCO 2014 caption annotations, train and val.

    python tools/corpus/fetch.py [--out target/corpus]

The pycocoevalcap wheel carries them inside spice-1.0.jar. Writes captions_train2014.json (414,113 captions) and
captions_val2014.json (202,654), and checks their SHA-256. What is there already and intact is not fetched again.
"""

import argparse
import hashlib
import io
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "pycocoevalcap==1.2"
JAR = "pycocoevalcap/spice/spice-1.0.jar"
FILES = {
    "captions_train2014.json": "6a24f59f17bdecb0b60bf299963c0e4e8345983405905a4e20230b055222fd77",
    "captions_val2014.json": "14ebad0ef1a546782a6a77d533c413e8a46ae179d7476872da91edb03c67d38d",
}


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[2] / "target/corpus")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    missing = [name for name, digest in FILES.items() if not ((out / name).exists() and sha256(out / name) == digest)]
    if missing:
        with tempfile.TemporaryDirectory(dir=out) as folder:
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", PACKAGE]
            subprocess.run(pip, cwd=folder, check=True)
            (wheel,) = Path(folder).glob("*.whl")
            with zipfile.ZipFile(wheel) as package, zipfile.ZipFile(io.BytesIO(package.read(JAR))) as jar:
                for name in missing:
                    content = jar.read(f"coco/annotations/{name}")
                    if hashlib.sha256(content).hexdigest() != FILES[name]:
                        sys.exit(f"{name} in {PACKAGE} is not the file this script expects")
                    partial = Path(folder, name)
                    partial.write_bytes(content)
                    partial.rename(out / name)
    for name in FILES:
        print(out / name)


if __name__ == "__main__":
    main()
