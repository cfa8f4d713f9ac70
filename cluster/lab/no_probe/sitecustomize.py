"""Send SkyPilot's question "is the network up?" to its own API server.

Before it judges a machine as lost, SkyPilot asks public addresses, and so does the controller of
managed jobs whenever a job's machine vanishes. The lab has no way out, so the answer would be that
the network is down. This folder must be on PYTHONPATH of every `sky` process before the API server
starts; it replaces the list of addresses as soon as SkyPilot's module has been loaded.
"""

import importlib.abc
import importlib.util
import os
import sys

MODULE = "sky.backends.backend_utils"


class _Redirect(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        original = spec.loader.exec_module

        def exec_module(module):
            original(module)
            assert hasattr(module, "_TEST_IP_LIST"), f"{MODULE} of this SkyPilot has no probe list"
            port = os.environ.get("SKYPILOT_API_SERVER_LOCAL_PORT", "46580")
            module._TEST_IP_LIST = [f"http://127.0.0.1:{port}/api/health"]

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, _Redirect())
