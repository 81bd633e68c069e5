"""Let `python -m geoml_cli` be `geoml`."""

from geoml_cli.cli import main

if __name__ == "__main__":
    main()
