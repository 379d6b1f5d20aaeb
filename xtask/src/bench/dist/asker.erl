%% What ours is compared with: a hidden node that makes the same calls, told by the same lines.
-module(asker).
-export([start/1]).

start([Node]) ->
    Name = list_to_atom(Node),
    true = net_kernel:connect_node(Name),
    loop(Name).

loop(Node) ->
    case io:get_line("") of
        eof ->
            halt(0);
        Line ->
            case string:lexemes(string:trim(Line), " ") of
                ["one", Count] -> one(Node, list_to_integer(Count));
                ["many", Count, Flight] -> many(Node, list_to_integer(Count), list_to_integer(Flight))
            end,
            loop(Node)
    end.

one(Node, Count) ->
    Began = erlang:monotonic_time(nanosecond),
    Took = took(Node, Count, []),
    Rate = rate(Count, Began),
    Sorted = lists:sort(Took),
    At = fun(Percent) -> lists:nth(Count * Percent div 100 + 1, Sorted) end,
    io:format("one ~b ~b ~b~n", [At(50), At(99), Rate]).

took(_, 0, Took) ->
    Took;
took(Node, Count, Took) ->
    Asked = erlang:monotonic_time(nanosecond),
    call(Node),
    took(Node, Count - 1, [erlang:monotonic_time(nanosecond) - Asked | Took]).

many(Node, Count, Flight) ->
    Each = Count div Flight,
    Began = erlang:monotonic_time(nanosecond),
    Callers = [spawn_monitor(fun() -> calls(Node, Each) end) || _ <- lists:seq(1, Flight)],
    [receive {'DOWN', Monitor, process, Caller, normal} -> ok end || {Caller, Monitor} <- Callers],
    io:format("many ~b~n", [rate(Each * Flight, Began)]).

calls(_, 0) ->
    ok;
calls(Node, Count) ->
    call(Node),
    calls(Node, Count - 1).

call(Node) ->
    {total, _} = lists:keyfind(total, 1, erpc:call(Node, erlang, memory, [])).

rate(Count, Began) ->
    Count * 1000000000 div (erlang:monotonic_time(nanosecond) - Began).
