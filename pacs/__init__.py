"""The PACS service of the appliance."""

__version__ = "0.1.0"
