"""The `pacs` command: one module a noun."""


def main() -> None:
    """Run the command line."""
    from pacs.cli.app import app

    app()
