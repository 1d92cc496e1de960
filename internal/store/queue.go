package store

type queues struct{}

func (q *queues) init() {}
