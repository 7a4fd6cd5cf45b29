"""`headrace torture`: real parts, killed and starved, must end with the rows of an undisturbed run."""
