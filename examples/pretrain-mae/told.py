"""Say in words what came of it: python told.py GAPS TUNED RANDOM SHARE."""

import json
import sys

gaps, tuned, random = (json.load(open(path))["metrics"] for path in sys.argv[1:4])
print(f"gaps: PSNR {gaps['psnr']['value']:.1f} dB, SSIM {gaps['ssim']['value']:.2f}")
share = f"{float(sys.argv[4]):.0%} of the labelled tiles"
for name, one in (("from the autoencoder", tuned), ("from random weights", random)):
    low, high = one["accuracy"]["lo"], one["accuracy"]["hi"]
    print(f"{share}, {name}: accuracy {one['accuracy']['value']:.3f} ({low:.3f} - {high:.3f})")
