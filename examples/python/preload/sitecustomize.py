# For apps whose SDK has requests trust its own list of certificates and nothing else, as Twilio's does: PYTHONPATH=/path/to/preload.
import os

bundle = os.environ.get("REQUESTS_CA_BUNDLE")
if bundle:
    try:
        import requests.adapters

        requests.adapters.DEFAULT_CA_BUNDLE_PATH = bundle
    except ImportError:
        pass
