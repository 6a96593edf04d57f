"""The operator as a process against a real etcd and API server, without node and root, with every fault on the way."""
