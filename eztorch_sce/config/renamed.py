"""Keys of earlier versions."""

RENAMED_KEYS: dict[str, str] = {
    "run.resume": "run.resume is no longer a setting: leave it out, and the command goes on with the run in run.dir",
    "loss.implementation": "loss.implementation is no longer a setting: there is one implementation",
    "loss.target_temperature_ramp.": (
        "loss.target_temperature_ramp is now ramps=[{setting:loss.target_temperature,start:0.1}]"
    ),
    "loss.positive_weight_ramp.": "loss.positive_weight_ramp is now ramps=[{setting:loss.positive_weight,start:1}]",
}
"""Error messages for keys of earlier versions. A key that ends in "." stands for all keys below it."""


def renamed(key: str) -> str | None:
    """Return the message for a key of an earlier version, or None."""
    for old, sentence in RENAMED_KEYS.items():
        if key == old or (old.endswith(".") and key.startswith(old)):
            return sentence
    return None
