// A proxy as one writes it in Go: io.Copy in both directions, which splices from socket to socket.
//
// `proxy LISTENER PORT` takes connections from the socket LISTENER and relays each to PORT, until it is killed.
package main

import (
	"io"
	"log"
	"net"
	"os"
	"strconv"
	"sync"
)

func relay(client *net.TCPConn, upstream string) {
	defer client.Close()
	connection, err := net.Dial("tcp", upstream)
	if err != nil {
		log.Fatal(err)
	}
	server := connection.(*net.TCPConn)
	defer server.Close()

	var both sync.WaitGroup
	both.Add(2)
	pass := func(to, from *net.TCPConn) {
		defer both.Done()
		if _, err := io.Copy(to, from); err != nil {
			log.Fatal(err)
		}
		to.CloseWrite()
	}
	go pass(server, client)
	go pass(client, server)
	both.Wait()
}

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: proxy LISTENER PORT")
	}
	number, err := strconv.Atoi(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	listener, err := net.FileListener(os.NewFile(uintptr(number), "listener"))
	if err != nil {
		log.Fatal(err)
	}
	for {
		client, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go relay(client.(*net.TCPConn), "127.0.0.1:"+os.Args[2])
	}
}
