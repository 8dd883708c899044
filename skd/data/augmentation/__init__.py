"""Strong augmentation: RandAugment, TrivialAugment, and the strong view of MLKD's authors."""
