"""The stages: one readable file each, heavy imports only inside the stage that needs them."""
