"""``python -m dqas_cli`` is ``dqas``."""

from dqas_cli.main import main

main()
