"""The process that keeps a local cluster: it starts it, says where it is, and ends it once its input is closed."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any


def main(given: dict[str, Any]) -> None:
    import ray

    context: Any = ray.init(
        num_cpus=given["cpus"],
        num_gpus=given["gpus"],
        object_store_memory=given["objects"],
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _memory=given["memory"],
        _temp_dir=given["folder"],
    )
    print(json.dumps({"address": context.address_info["gcs_address"]}), flush=True)
    sys.stdin.read()  # ends with whoever started this, however that ends
    ray.shutdown()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
