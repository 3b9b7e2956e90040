"""What ansible-test runs to put pip into its environments, in place of the script it would download.

It lies in ~/.ansible/test/cache as get_pip_<version>.py with pip's wheel beside it; the gate `sanity` puts both there.
The wheel is importable as it is, so the pip in it installs itself.
"""

import re
import runpy
import sys
from pathlib import Path

version = re.sub(r"\D+", ".", Path(__file__).stem.removeprefix("get_pip_"))
wheel = Path(__file__).with_name(f"pip-{version}-py3-none-any.whl")
# Options of the script which pip itself does not have.
options = [option for option in sys.argv[1:] if option not in ("--no-setuptools", "--no-wheel")]
sys.path.insert(0, str(wheel))
sys.argv = ["pip", "install", "--force-reinstall", "--no-index", "--find-links", str(wheel.parent), *options]
runpy.run_module("pip", run_name="__main__", alter_sys=True)
