package auth

import "container/list"

// lru is a map of bounded size: when it is full, what was put in, or touched,
// longest ago goes. It is not safe for concurrent use.
type lru[K comparable, V any] struct {
	most  int
	byKey map[K]*list.Element // of *lruEntry[K, V]
	order *list.List          // the newest in front
}

type lruEntry[K comparable, V any] struct {
	key   K
	value V
}

func newLRU[K comparable, V any](most int) *lru[K, V] {
	return &lru[K, V]{most: most, byKey: make(map[K]*list.Element), order: list.New()}
}

// get returns a value without touching it.
func (l *lru[K, V]) get(k K) (v V, ok bool) {
	e, ok := l.byKey[k]
	if !ok {
		return v, false
	}
	return e.Value.(*lruEntry[K, V]).value, true
}

// put sets a value and touches it.
func (l *lru[K, V]) put(k K, v V) {
	if e, ok := l.byKey[k]; ok {
		e.Value.(*lruEntry[K, V]).value = v
		l.order.MoveToFront(e)
		return
	}
	for len(l.byKey) >= l.most {
		l.remove(l.order.Back().Value.(*lruEntry[K, V]).key)
	}
	l.byKey[k] = l.order.PushFront(&lruEntry[K, V]{k, v})
}

func (l *lru[K, V]) remove(k K) {
	if e, ok := l.byKey[k]; ok {
		l.order.Remove(e)
		delete(l.byKey, k)
	}
}

// all calls f for each entry, the newest first.
func (l *lru[K, V]) all(f func(K, V)) {
	for e := l.order.Front(); e != nil; e = e.Next() {
		entry := e.Value.(*lruEntry[K, V])
		f(entry.key, entry.value)
	}
}
