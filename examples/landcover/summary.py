"""Say how good the map is, what it had to beat, and where everything lies."""

import json
from pathlib import Path

ROWS = {
    "U-Net": "scores.json",
    "random forest on pixels": "forest.json",
    "commonest class": "majority.json",
}

print("\nAgreement with the check points; each was mapped by a network that never saw its ground.")
print(f"{'':26}{'accuracy':>9}  {'95 % interval':15}{'mIoU':>6}  {'95 % interval':15}{'points':>6}")
for name, path in ROWS.items():
    metrics = json.loads(Path(path).read_text())["metrics"]
    cells = [
        f"{metrics[m]['value']:.3f}  {metrics[m]['lo']:.3f} - {metrics[m]['hi']:.3f}  "
        for m in ("accuracy", "miou")
    ]
    print(f"{name:27}{'   '.join(cells)}   {metrics['accuracy']['n']:4}")
here = Path.cwd()
print(
    f"\nmap      {here / 'map' / 'olinda.tif'}\npicture  {here / 'map.png'}\nreport   {here / 'report.html'}"
)
