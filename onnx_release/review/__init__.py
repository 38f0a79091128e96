"""What a change did: two revisions compared, figure by figure, and the gates."""
