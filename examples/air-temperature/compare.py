"""Say how good the map is by each split, and where everything lies."""

import json
from pathlib import Path

ROWS = {"blocks of ground": "scores.json", "places at random": "random.json"}

print(
    f"\n{'held out':20}{'RMSE':>7}  {'95 % interval':14}{'R2':>6}{'residual I':>12}  of 1,325 places"
)
for name, path in ROWS.items():
    found = json.loads(Path(path).read_text())["metrics"]
    rmse = found["rmse"]
    print(
        f"{name:20}{rmse['value']:7.2f}  {rmse['lo']:.2f} - {rmse['hi']:.2f}   {found['r2']['value']:7.3f}"
        f"{found['residual_morans_i']['value']:12.2f}"
    )
print(f"\nmap      {Path.cwd() / 'map.tif'}\npicture  {Path.cwd() / 'map.png'}")
