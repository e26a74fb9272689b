"""Turn a JSON configuration of modelco into one of MoCo, and let moco run and moco bench read it as it is."""
