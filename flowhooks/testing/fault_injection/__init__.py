"""`exactly_once`: stops a handler at each line of its code and checks how often its work was done."""
