"""What Flower looks for by name."""

from pipelines.federated import apps

_APPS = apps()
SITES = _APPS[0]  # Flower reads names from the text, and knows plain assignments alone
SERVER = _APPS[1]
