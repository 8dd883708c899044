"""Where a number comes from, and bringing numbers together: `skd show`, `skd merge`. No torch."""
