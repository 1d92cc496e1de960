module github.com/isthmus-iot/isthmus

go 1.26
