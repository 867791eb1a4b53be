"""Prints return, gain and milliseconds of all plannings of a comparison: FOLDER [--json]."""

import sys
from pathlib import Path

from mbrl.cli.plan import print_study_plans

if __name__ == "__main__":
    print_study_plans(Path(sys.argv[1]), is_json="--json" in sys.argv)
