package app

import (
	"io"
	"log/slog"
)

// Logger is a logger whose level a reload can change.
type Logger struct {
	*slog.Logger
	level *slog.LevelVar
}

// NewLogger logs to w as c says. terminal says that people read along.
func NewLogger(w io.Writer, terminal bool, c Log) *Logger {
	l := &Logger{level: new(slog.LevelVar)}
	l.set(c.Level)
	options := &slog.HandlerOptions{Level: l.level}
	if c.Format == "text" || c.Format == "auto" && terminal {
		l.Logger = slog.New(slog.NewTextHandler(w, options))
	} else {
		l.Logger = slog.New(slog.NewJSONHandler(w, options))
	}
	return l
}

func (l *Logger) set(level Level) {
	var parsed slog.Level
	if parsed.UnmarshalText([]byte(level)) == nil {
		l.level.Set(parsed)
	}
}
