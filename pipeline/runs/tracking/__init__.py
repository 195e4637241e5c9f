"""What a run did and how far it is: the record beside each domain's product, and the status made from it."""
