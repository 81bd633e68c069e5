"""Say how good the map is by each split, and where everything lies."""

import json
from pathlib import Path

ROWS = {"cells of 20 degrees": "scores.json", "places at random": "random.json"}

print(f"\n{'held out':22}{'accuracy':>9}  {'95 % interval':16}{'mIoU':>6}   of 5,000 places")
for name, path in ROWS.items():
    found = json.loads(Path(path).read_text())["metrics"]
    one = found["accuracy"]
    print(
        f"{name:22}{one['value']:9.3f}  {one['lo']:.3f} - {one['hi']:.3f}   {found['miou']['value']:.3f}"
    )
print(f"\nmap      {Path.cwd() / 'map.tif'}\npicture  {Path.cwd() / 'map.png'}")
