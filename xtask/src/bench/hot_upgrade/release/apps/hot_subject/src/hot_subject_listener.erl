%% Owns the listening socket and its hundred acceptors, which no upgrade touches: what they call, they call by its whole name.
-module(hot_subject_listener).
-behaviour(gen_server).
-export([start_link/2, init/1, handle_call/3, handle_cast/2, accept/2, answer/2]).

-define(ACCEPTORS, 100).

start_link(Keepers, Port) ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, {Keepers, Port}, []).

init({Keepers, Port}) ->
    Options = [binary, {active, false}, {reuseaddr, true}, {backlog, 4096}, {ip, {127, 0, 0, 1}}],
    {ok, Socket} = gen_tcp:listen(Port, Options),
    [spawn_link(?MODULE, accept, [Socket, Keepers]) || _ <- lists:seq(1, ?ACCEPTORS)],
    {ok, Socket}.

handle_call(_Request, _From, Socket) -> {reply, ok, Socket}.

handle_cast(_Request, Socket) -> {noreply, Socket}.

accept(Socket, Keepers) ->
    {ok, Client} = gen_tcp:accept(Socket),
    Handler = spawn(?MODULE, answer, [Client, Keepers]),
    case gen_tcp:controlling_process(Client, Handler) of
        ok -> Handler ! go;
        {error, _} -> ok
    end,
    accept(Socket, Keepers).

answer(Client, Keepers) ->
    receive go -> ok after 5000 -> exit(normal) end,
    case gen_tcp:recv(Client, 0, 5000) of
        {ok, <<"GET ", Rest/binary>>} ->
            [Path | _] = binary:split(Rest, <<" ">>),
            Body = body(Path, Keepers),
            Length = integer_to_list(iolist_size(Body)),
            gen_tcp:send(Client, ["HTTP/1.1 200 OK\r\ncontent-length: ", Length, "\r\nconnection: close\r\n\r\n", Body]);
        _ ->
            ok
    end,
    gen_tcp:close(Client).

%% Any one of them, so that an upgrade of the keepers is met by who asks.
body(<<"/next">>, Keepers) ->
    Count = hot_subject_keeper:next(rand:uniform(Keepers)),
    hot_subject_page:counted(Count);
body(<<"/changed">>, Keepers) ->
    Changed = [Number || Number <- lists:seq(1, Keepers), hot_subject_keeper:is_changed(Number)],
    integer_to_list(length(Changed));
body(_, _) ->
    hot_subject_page:version().
